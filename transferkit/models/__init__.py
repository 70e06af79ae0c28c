"""Models as folders of files, and the manifests that describe them: pure code, data in and data out."""
