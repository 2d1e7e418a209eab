"""The queue of a device: who comes first, what is expected of the others, and what ends the waiting."""

from __future__ import annotations

import math
import threading

import pytest

from costroute_rt.error import BusyError, CancelledError
from costroute_rt.generation.queue import Device, Forecast, Place, State, Ticket, shared_device
from tests.runtime.fakes import FakeClock


def no_check() -> None:
    return None


class Waiters:
    """Threads that each wait for one turn, and the order in which they got it."""

    def __init__(self, device: Device) -> None:
        self.device, self.order, self.threads = device, list[str](), list[threading.Thread]()

    def start(self, name: str, ticket: Ticket) -> None:
        """Let a request wait, and return when it does."""

        def run() -> None:
            with self.device.turn(ticket, no_check):
                self.order.append(name)
            self.device.leave(ticket)

        before = self.device.waiting
        self.device.enter(ticket, None)
        self.threads.append(threading.Thread(target=run))
        self.threads[-1].start()
        while self.device.waiting == before:
            threading.Event().wait(0.001)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(60)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def device(clock: FakeClock) -> Device:
    return Device(clock)


def entered(device: Device, ticket: Ticket, state: State = State.WAITING) -> Ticket:
    device.enter(ticket, None)
    device.note(ticket, state)
    return ticket


def test_the_earliest_deadline_goes_first_and_requests_without_a_budget_in_order_of_arrival(device: Device) -> None:
    waiters, first = Waiters(device), Ticket()
    with device.turn(first, no_check):
        waiters.start("no budget, first", Ticket())
        waiters.start("no budget, second", Ticket())
        waiters.start("late", Ticket(deadline_s=200.0))
        waiters.start("soon", Ticket(deadline_s=150.0))
    waiters.join()
    assert waiters.order == ["soon", "late", "no budget, first", "no budget, second"]


def test_a_request_keeps_the_device_from_unit_to_unit(device: Device) -> None:
    """Two requests that alternated would both take twice as long."""
    waiters, first = Waiters(device), Ticket()
    device.enter(first, None)
    with device.turn(first, no_check):
        waiters.start("second", Ticket())
    for unit in range(3):
        with device.turn(first, no_check):
            waiters.order.append(f"first, unit {unit}")
    device.leave(first)
    waiters.join()
    assert waiters.order[-1] == "second"


def test_a_request_keeps_the_device_without_asking_only_while_it_is_alone(device: Device) -> None:
    first, second = entered(device, Ticket()), Ticket()
    with device.turn(first, no_check):
        assert device.keep(first)
        device.enter(second, None)
        assert not device.keep(first)
        device.leave(second)
        assert device.keep(first)


def test_the_unit_that_runs_counts_from_the_last_time_the_device_was_kept(device: Device, clock: FakeClock) -> None:
    first, second = entered(device, Ticket(remaining_ms=300.0, unit_ms=100.0)), Ticket(deadline_s=1.0)
    with device.turn(first, no_check):
        clock.pass_ms(100)
        first.remaining_ms = 200.0
        assert device.keep(first)
        clock.pass_ms(30)
        assert device.forecast(second).queue_ms == pytest.approx(70.0)


def test_a_paused_request_holds_nothing(device: Device) -> None:
    waiters, paused = Waiters(device), Ticket(deadline_s=101.0)
    device.enter(paused, None)
    with device.turn(paused, no_check):
        waiters.start("other", Ticket())
    waiters.join()
    assert waiters.order == ["other"]


def test_a_more_urgent_request_takes_over_between_two_units(device: Device) -> None:
    waiters, first = Waiters(device), Ticket(deadline_s=200.0)
    device.enter(first, None)
    with device.turn(first, no_check):
        waiters.start("urgent", Ticket(deadline_s=150.0))
    with device.turn(first, no_check):
        waiters.order.append("first")
    waiters.join()
    assert waiters.order == ["urgent", "first"]


def test_a_check_that_raises_ends_the_waiting_and_lets_the_next_one_run(device: Device) -> None:
    waiters, gives_up, raised = Waiters(device), threading.Event(), list[Exception]()

    def check() -> None:
        if gives_up.is_set():
            raise CancelledError

    def wait() -> None:
        try:
            with device.turn(ticket, check):
                pytest.fail("it had its turn")
        except CancelledError as error:
            raised.append(error)

    ticket = Ticket(deadline_s=101.0)
    thread = threading.Thread(target=wait)
    with device.turn(Ticket(), no_check):
        thread.start()
        waiters.start("other", Ticket())
        gives_up.set()
        device.wake([ticket])
        thread.join(60)
        assert len(raised) == 1
    waiters.join()
    assert waiters.order == ["other"]


def test_the_wait_is_that_for_more_urgent_requests_and_the_running_unit(device: Device, clock: FakeClock) -> None:
    entered(device, Ticket(deadline_s=110.0, remaining_ms=300.0))
    running = entered(device, Ticket(deadline_s=200.0, remaining_ms=900.0, unit_ms=80.0))
    entered(device, Ticket(deadline_s=300.0, remaining_ms=50.0))
    with device.turn(running, no_check):
        pass
    ticket = Ticket(deadline_s=120.0)
    assert device.forecast(ticket).queue_ms == 300.0
    assert device.forecast(Ticket(deadline_s=250.0)).queue_ms == 300.0 + 900.0
    assert device.forecast(Ticket()).queue_ms == 300.0 + 900.0 + 50.0


def test_time_already_spent_on_the_running_unit_is_not_waited_for_again(device: Device, clock: FakeClock) -> None:
    running = entered(device, Ticket(remaining_ms=900.0, unit_ms=80.0))
    with device.turn(running, no_check):
        clock.pass_ms(30)
        assert device.forecast(Ticket()).queue_ms == pytest.approx(870)
        assert device.forecast(Ticket(deadline_s=101.0)).queue_ms == pytest.approx(50)
        clock.pass_ms(100)
        assert device.forecast(Ticket(deadline_s=101.0)).queue_ms == 0


def test_a_request_gets_the_time_that_less_urgent_ones_can_spare(device: Device) -> None:
    entered(device, Ticket(deadline_s=100.5, remaining_ms=200.0))
    entered(device, Ticket(deadline_s=101.0, remaining_ms=650.0))
    entered(device, Ticket(deadline_s=101.1, remaining_ms=500.0))  # late anyway
    assert device.forecast(Ticket(deadline_s=100.2)) == Forecast(0.0, pytest.approx(150.0))
    assert device.forecast(Ticket(deadline_s=100.8)) == Forecast(200.0, pytest.approx(150.0))
    assert device.forecast(Ticket()).slack_ms == math.inf


def test_the_spread_of_the_others_is_part_of_the_forecast(device: Device) -> None:
    entered(device, Ticket(deadline_s=100.1, remaining_ms=30.0, reserve_ms=3.0))
    entered(device, Ticket(deadline_s=100.2, remaining_ms=40.0, reserve_ms=4.0))
    late = device.forecast(Ticket(deadline_s=100.3))
    assert (late.queue_ms, late.queue_spread_ms, late.slack_ms) == (70.0, pytest.approx(5.0), math.inf)
    early = device.forecast(Ticket(deadline_s=100.0))
    assert (early.queue_ms, early.slack_ms) == (0.0, pytest.approx(67.0))


def test_a_request_may_use_what_it_has_reserved(device: Device) -> None:
    first = entered(device, Ticket(deadline_s=100.1, remaining_ms=60.0, reserve_ms=6.0))
    entered(device, Ticket(deadline_s=100.11, remaining_ms=40.0, reserve_ms=8.0))
    assert device.forecast(first).slack_ms == 66.0
    assert device.forecast(Ticket(deadline_s=100.0)).slack_ms < 34.0


def test_the_running_unit_is_counted_once_when_others_spare_time(device: Device, clock: FakeClock) -> None:
    running = entered(device, Ticket(deadline_s=100.5, remaining_ms=400.0, unit_ms=80.0))
    with device.turn(running, no_check):
        assert device.forecast(Ticket(deadline_s=100.2)) == Forecast(80.0, pytest.approx(100.0))
        clock.pass_ms(30)
        assert device.forecast(Ticket(deadline_s=100.2)) == Forecast(pytest.approx(50.0), pytest.approx(100.0))


def test_a_unit_that_has_ended_is_not_subtracted_twice_before_its_turn_ends(device: Device, clock: FakeClock) -> None:
    running = entered(device, Ticket(deadline_s=100.5, remaining_ms=400.0, unit_ms=80.0))
    with device.turn(running, no_check):
        clock.pass_ms(80)
        device.note_work(running, 320.0, unit_ms=70.0)
        assert device.forecast(Ticket()).queue_ms == 320.0
        assert device.forecast(Ticket(deadline_s=100.2)).queue_ms == 70.0


def test_a_turn_that_ends_after_its_request_has_left_takes_the_device_from_nobody(device: Device) -> None:
    """As when an exception interrupted it, and its frame is freed later."""
    left, other = entered(device, Ticket()), entered(device, Ticket())
    interrupted = device.turn(left, no_check)
    interrupted.__enter__()
    device.leave(left)
    with device.turn(other, no_check):
        interrupted.__exit__(None, None, None)
        assert device.runs_here([other])
    assert device.is_alone(other)


def test_a_consumer_that_is_away_is_not_waited_for(device: Device, clock: FakeClock) -> None:
    entered(device, Ticket(deadline_s=101.0, remaining_ms=300.0), State.AWAY)
    assert device.forecast(Ticket()).queue_ms == 300.0
    clock.pass_ms(60)
    assert device.forecast(Ticket()).queue_ms == 0.0


def test_a_consumer_that_was_away_loses_its_place_if_it_was_given_to_others(device: Device, clock: FakeClock) -> None:
    paused = entered(device, Ticket(deadline_s=101.0, remaining_ms=300.0), State.AWAY)
    device.come_back(paused)
    assert paused.deadline_s == 101.0
    device.note(paused, State.AWAY)
    clock.pass_ms(60)
    accepted = entered(device, Ticket(deadline_s=101.1, remaining_ms=900.0))
    device.come_back(paused)
    assert paused.deadline_s == math.inf
    assert device.forecast(accepted).queue_ms == 0.0


@pytest.mark.parametrize("allowed", [0, 1, 3])
def test_more_requests_than_may_wait_are_refused(device: Device, allowed: int) -> None:
    tickets = [entered(device, Ticket(remaining_ms=400.0)) for _ in range(allowed + 1)]
    with pytest.raises(BusyError) as caught:
        device.enter(Ticket(), allowed)
    assert (caught.value.waiting, caught.value.max_waiting, caught.value.retry_after_ms) == (allowed, allowed, 400.0)
    device.leave(tickets[0])
    device.enter(Ticket(), allowed)


def test_waiting_for_requests_ends_when_their_unit_does(device: Device) -> None:
    ticket, other, ended = Ticket(), Ticket(), threading.Event()
    in_turn, may_end = threading.Event(), threading.Event()

    def run() -> None:
        with device.turn(ticket, no_check):
            in_turn.set()
            device.wait_for([ticket])  # its own unit: returns at once
            may_end.wait(60)

    def close() -> None:
        device.wait_for([ticket])
        ended.set()

    threads = [threading.Thread(target=each) for each in (run, close)]
    threads[0].start()
    in_turn.wait(60)
    device.wait_for([other])
    threads[1].start()
    assert not ended.wait(0.02)
    may_end.set()
    assert ended.wait(60)
    for thread in threads:
        thread.join(60)


def test_runtimes_of_a_process_share_the_queue_of_a_device() -> None:
    assert shared_device("cpu") is shared_device("cpu")
    assert shared_device("cpu") is not shared_device("cuda")


def test_a_place_counts_who_goes_first_and_what_runs(device: Device) -> None:
    running, urgent, mine, later = Ticket(), Ticket(50.0), Ticket(90.0), Ticket(95.0)
    for ticket, left_ms in ((running, 40.0), (urgent, 30.0), (mine, 10.0), (later, 20.0)):
        entered(device, ticket).remaining_ms = left_ms
    running.unit_ms = 5.0
    device._running = running
    assert device.place(mine) == Place(2, 35.0)
    assert device.place(later) == Place(3, 45.0)
    device._running = None
    device.leave(urgent)
    assert device.place(mine) == Place(0, 0.0)
