"""Everything around the notebooks: the command, running, results, published copies, hand-outs, the check-up."""
