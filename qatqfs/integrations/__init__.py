"""Plug-ins for other programs. Each module imports the other program's library only when it is used."""
