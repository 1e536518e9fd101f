"""The delivery engine: queue, spool, cursors, dispatcher, breaker, dead letters. Knows no kind of target."""
