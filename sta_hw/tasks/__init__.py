"""The host's half of a task: texts and images in, embeddings and classes out."""
