"""The pass over the images on several processes or machines, by Ray."""
