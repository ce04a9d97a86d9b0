"""What plugs into other programs, in their own terms. Each module imports its library when it is used."""
