"""What makes a team run: files, broker, bus, processes, commands."""
