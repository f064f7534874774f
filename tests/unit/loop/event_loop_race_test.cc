// SPDX-License-Identifier: Apache-2.0
// Many threads at once against one loop: nothing is lost, reordered, or left asleep.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/synchronization/barrier.h"
#include "absl/synchronization/notification.h"
#include "server/loop/event_loop.h"
#include "tests/unit/loop/loop_thread.h"

namespace stoker::loop {
namespace {

using ::stoker::testing::LoopThread;

TEST(EventLoopRaceTest, Post_FromManyThreads_LosesNothingAndKeepsEachThreadsOrder) {
  constexpr int kThreads = 8, kPosts = 5000;
  LoopThread loop;
  std::vector<std::vector<int>> seen(kThreads);  // the loop's
  absl::Barrier* const start = new absl::Barrier(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      if (start->Block()) delete start;
      for (int i = 0; i < kPosts; ++i) loop->Post([&seen, t, i] { seen[static_cast<size_t>(t)].push_back(i); });
    });
  }
  for (std::thread& thread : threads) thread.join();
  loop.Stop();
  for (const std::vector<int>& of_thread : seen) {
    ASSERT_EQ(of_thread.size(), size_t{kPosts});
    for (int i = 0; i < kPosts; ++i) ASSERT_EQ(of_thread[static_cast<size_t>(i)], i);
  }
}

// Each Call needs a wake-up of its own, since its thread posts nothing more before it is answered. A lost one would
// stall it until the loop's next turn, a second later: 20,000 of them would take hours.
TEST(EventLoopRaceTest, Call_FromManyThreads_NeverMissesAWakeUp) {
  constexpr int kThreads = 4, kCalls = 5000;
  LoopThread loop;
  int64_t total = 0;  // the loop's
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < kCalls; ++i) loop->Call([&] { ++total; });
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(loop->Call([&] { return total; }), int64_t{kThreads} * kCalls);
}

// Posts that race with the loop going to sleep: the second one finds the first still queued, or already taken.
TEST(EventLoopRaceTest, Post_WhileTheLoopFallsAsleep_WakesItAgain) {
  LoopThread loop;
  for (int i = 0; i < 5000; ++i) {
    absl::Notification second;
    loop->Post([] {});
    std::thread other([&] { loop->Post([] {}); });
    loop->Post([&] { second.Notify(); });
    second.WaitForNotification();
    other.join();
  }
}

TEST(EventLoopRaceTest, Stop_RacingWithPosts_RunsAllThatCameBefore) {
  for (int round = 0; round < 300; ++round) {
    std::atomic<int> ran{0};
    int posted = 0;
    EventLoop loop;
    std::thread thread([&] { loop.Run(); });
    std::thread noise([&] {
      for (int i = 0; i < 20; ++i) loop.Post([] {});
    });
    for (; posted < 20; ++posted) loop.Post([&] { ++ran; });
    loop.Stop();
    thread.join();
    noise.join();
    ASSERT_EQ(ran.load(), posted);
  }
}

}  // namespace
}  // namespace stoker::loop
