"""Real trainings on real photos: a plan of systems and seeds -> checkpoints, scores, sheets, a report."""
