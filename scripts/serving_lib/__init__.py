"""A small transformer that serves prompts with a paged K/V cache, whose blocks are files."""
