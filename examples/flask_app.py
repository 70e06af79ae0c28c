"""A Flask app that answers Ollama's clients as well: its own routes, and the models of this machine below ``/api/``.

Run it with ``flask --app examples/flask_app.py run --port 11434``, and pull with any client of Ollama's. Whoever
reaches it may pull and delete: that is for this machine alone, or behind what the app has for passwords.
"""

from __future__ import annotations

from flask import Flask

import transferkit as tk
from transferkit.server import LocalAPI

app = Flask(__name__)


@app.get("/")
def hello() -> str:
    return "hello"


app.wsgi_app = LocalAPI(tk.Registry(), fallback=app.wsgi_app)  # type: ignore[method-assign]  # as Flask has it
