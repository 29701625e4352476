"""Ways into other libraries' loops: each module knows one library, and of ours the public names."""
