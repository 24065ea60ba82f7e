"""Shows a run to people: status, leaderboard, report, live display, dashboard."""
