"""What a database holds, carried out of it and into another: as lines that anybody can read, or as a file."""
