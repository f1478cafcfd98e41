"""The pass over the images, and those of fits, by several processes or machines, on Ray."""
