"""The rules of the wire as pure code: data in, data out. No sockets, no files, no clock of its own."""
