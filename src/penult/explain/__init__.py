"""What single features of single images look at."""
