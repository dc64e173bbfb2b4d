"""Data: one on-disk format, the data set that reads it, tasks, augmentation and the synthetic faces."""
