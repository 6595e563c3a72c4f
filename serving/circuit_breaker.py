"""STUB until the breaker is there."""


class Transition:
    pass


class Permit:
    def succeeded(self, took):
        pass

    def failed(self, took):
        pass

    def cancelled(self):
        pass


class CircuitBreaker:
    def __init__(self, *a, **k):
        self.state = "closed"

    def permit(self):
        return Permit()
