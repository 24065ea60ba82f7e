"""What people see of a run: status, leaderboard, report, live display, dashboard."""
