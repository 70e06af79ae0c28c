"""Progress for people: bars on a terminal and in a notebook, lines in a log. It only shows what it is handed."""
