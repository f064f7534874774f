// SPDX-License-Identifier: Apache-2.0
// Timers on a machine whose clock is set: by NTP, by hand, after a suspend.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/loop/event_loop.h"

namespace {
std::atomic<int64_t> g_wall_clock_shift_seconds{0};
}  // namespace

// Takes the place of libc's in this program: the time of day can be moved, the monotonic clock cannot.
extern "C" int clock_gettime(clockid_t clock, timespec* time) {
  const int result = static_cast<int>(::syscall(SYS_clock_gettime, clock, time));
  if (result == 0 && clock == CLOCK_REALTIME) time->tv_sec += g_wall_clock_shift_seconds.load();
  return result;
}

namespace stoker::loop {
namespace {

class EventLoopClockTest : public ::testing::Test {
 protected:
  void TearDown() override { EXPECT_TRUE(SetClock(0)); }

  // Sets the clock and waits until Abseil, which extrapolates from the processor's counter, has noticed.
  static bool SetClock(int64_t shift_seconds) {
    g_wall_clock_shift_seconds = shift_seconds;
    for (int i = 0; i < 1000; ++i) {
      timespec now;
      clock_gettime(CLOCK_REALTIME, &now);
      if (absl::AbsDuration(absl::Now() - absl::TimeFromTimespec(now)) < absl::Minutes(1)) return true;
      absl::SleepFor(absl::Milliseconds(10));
    }
    return false;
  }

  EventLoop loop_;
};

TEST_F(EventLoopClockTest, ClockIsSetForward_DeadlinesDoNotPassEarly) {
  bool deadline = false;
  loop_.After(absl::Minutes(10), [&] { deadline = true; });
  ASSERT_TRUE(SetClock(3600));
  loop_.After(absl::Milliseconds(20), [&] { loop_.Stop(); });
  loop_.Run();
  EXPECT_FALSE(deadline) << "a worker that is not late would have been killed";
}

TEST_F(EventLoopClockTest, ClockIsSetBack_TimersFireAllTheSame) {
  ASSERT_TRUE(SetClock(3600));
  loop_.After(absl::Milliseconds(20), [&] { loop_.Stop(); });
  ASSERT_TRUE(SetClock(0));
  loop_.Run();  // ends, else the test's deadline does
}

}  // namespace
}  // namespace stoker::loop
