import os

# One thread: the models are tiny, and two processes with two threads each slow each other many times over.
os.environ.setdefault("OMP_NUM_THREADS", "1")
