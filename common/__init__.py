"""What agents, environments, tasks and the command line share: registries and checks. Depends on none of them."""
