// SPDX-License-Identifier: Apache-2.0
// Sessions whose both ends act at once, as clients, the event loop and gRPC's threads do. What is looked for:
// deadlocks, use after the end (a sanitizer tells), and sessions that are not closed exactly once or never freed.
#include <gtest/gtest.h>

#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/unit/loop/loop_thread.h"
#include "tests/unit/rpc/fake_core.h"

namespace stoker::rpc {
namespace {

using stoker::testing::LoopThread;
using testing::FakeCore;
using testing::MakeReply;
using testing::SessionClient;
using testing::TestServer;

class SessionRaceTest : public ::testing::Test {
 protected:
  // The daemon: on its loop it sends a few replies of all sizes to who opens or advances, and ends one in three.
  SessionRaceTest() {
    core_.keep_peers = false;
    core_.on_open = [this](const FakeCore::Peer& peer, const auto&) {
      loop_->Post([this, peer] {
        for (int i = Random(20); i > 0; --i) peer->Send(MakeReply(1, static_cast<size_t>(Random(64 << 10))));
        if (Random(3) == 0) peer->End(absl::UnavailableError("at random"));
      });
    };
    core_.on_advance = [this](const FakeCore::Peer& peer, const auto&) {
      loop_->Post([peer] { peer->Send(MakeReply(2)); });
    };
    // The daemon's last word on a session is on its loop too, and may be what frees it.
    core_.on_close = [this](const FakeCore::Peer& peer) {
      loop_->Post([peer] { peer->End(absl::UnavailableError("after the end")); });
    };
  }
  int Random(int below) { return static_cast<int>(random_() % static_cast<unsigned>(below)); }  // on the loop

  // One client that behaves in one of eight ways.
  void RunClient(unsigned behaviour, const std::string& name) {
    std::function<void()> cut;
    const auto cut_stub = behaviour % 4 == 0 ? server_.ConnectToBeCut(&cut) : nullptr;
    SessionClient client(cut_stub ? cut_stub.get() : stub_.get());
    client.Open(name);
    v1::SessionReply reply;
    if (behaviour & 4) {
      for (int i = 0; i < 5; ++i) client.Advance(1);
      client.Read(&reply);
    }
    switch (behaviour % 4) {
      case 0:
        return cut();
      case 1:
        return client.Cancel();
      case 2:
        client.HalfClose();
        client.Finish();
        return;
      default:
        return;  // its destructor cancels
    }
  }

  std::minstd_rand random_{1};
  LoopThread loop_;
  FakeCore core_;
  TestServer server_{&core_};
  std::unique_ptr<v1::Stoker::Stub> stub_ = server_.Connect();
};

TEST_F(SessionRaceTest, ClientsThatComeAndGo_AreEachClosedOnceAndFreed) {
  constexpr int kThreads = 4, kRounds = 100;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      std::minstd_rand random(static_cast<unsigned>(t) + 7);
      for (int i = 0; i < kRounds; ++i) RunClient(static_cast<unsigned>(random() >> 8), "a");
    });
  }
  for (std::thread& thread : threads) thread.join();
  server_.Shutdown(absl::ZeroDuration());
  loop_->Call([] {});
  EXPECT_EQ(core_.CountOf("close"), core_.CountOf("open a"));
  EXPECT_GT(core_.CountOf("open a"), 0);
  EXPECT_TRUE(core_.ForgetPeers());
}

TEST_F(SessionRaceTest, ServerShutdown_WhileAllTalk_ClosesAll) {
  constexpr int kThreads = 4;
  std::vector<std::thread> threads;
  std::atomic<bool> over{false};
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t, &over] {
      while (!over) {
        SessionClient client(stub_.get());
        if (!client.Open(absl::StrCat(t))) continue;
        v1::SessionReply reply;
        for (int i = 0; i < 50 && client.Advance(1); ++i) client.Read(&reply);
      }
    });
  }
  ASSERT_TRUE(core_.AwaitEvents(500));
  server_.Shutdown(absl::Milliseconds(20));
  over = true;
  for (std::thread& thread : threads) thread.join();
  loop_->Call([] {});
  int opened = 0;
  for (int t = 0; t < kThreads; ++t) opened += core_.CountOf(absl::StrCat("open ", t));
  EXPECT_EQ(core_.CountOf("close"), opened);
  EXPECT_TRUE(core_.ForgetPeers());
}

}  // namespace
}  // namespace stoker::rpc
