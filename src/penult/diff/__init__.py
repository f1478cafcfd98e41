"""Two runs compared: what changed between two networks or heads, by samples and by features.

A gate says whether the change may ship.
"""
