"""The commands that compute: a run as a process, resumed, swept, evaluated, judged again."""
