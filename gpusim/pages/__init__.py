"""The pages: which are dirty, which are zero, in bitmaps of real size; how writes become bits."""
