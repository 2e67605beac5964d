"""What gencomp plugs into Ray Train: its process group, its scaling policy, its reasons."""
