"""The search's decisions: plain code between study, sampler, scheduler and budget."""
