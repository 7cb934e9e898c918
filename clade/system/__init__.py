"""The machine that this runs on: processor, threads, memory, time, and how far long work is."""
