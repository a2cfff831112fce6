"""The edgec command and the pass author's tools."""
