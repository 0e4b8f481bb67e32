"""The parts of `robustness.py`: a user's folder, damage, wrong options, interruptions, and how endings are judged."""
