"""Keys of the server and the threads that verify signatures."""
