"""What the worker of a job is made of: data, plan, schedule, training, submission."""
