"""HTTP: the only package that imports requests and urllib3. It knows origins and answers, not blobs and files."""
