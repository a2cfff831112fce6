"""What goes out: one folder per device family, target profiles as YAML."""
