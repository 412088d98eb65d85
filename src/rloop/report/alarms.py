"""The alarms of a run: numbers which said that learning went wrong, once each."""

from rloop.report.run_record import RunRecord


def alarm_sentences(record: RunRecord) -> list[str]:
    """Return a sentence for each alarm, in time.

    Steps that a resumed run did again sound again; the first counts.
    """
    first: dict[tuple[object, ...], str] = {}
    for event in record.events:
        if event.get("name") == "alarm":
            place = tuple(event.get(key) for key in ("iteration", "phase", "step", "what"))
            first.setdefault(place, f"{_where(event)}: {event.get('text', event.get('what'))}.")
    return list(first.values())


def _where(event: dict[str, object]) -> str:
    step = f", step {event['step']}" if event.get("step") else ""
    return f"Iteration {event.get('iteration')}, {event.get('phase')}{step}"
