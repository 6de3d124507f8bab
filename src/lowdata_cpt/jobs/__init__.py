"""What each job of the workflow does: read inputs, call the package, write outputs and their sidecars."""
