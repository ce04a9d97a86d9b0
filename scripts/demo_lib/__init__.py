"""The demo: a small transformer makes a K/V cache, and a qatqfs mount stores it and gives it back."""
