"""Wire format to Operation and Reply, nothing else."""
