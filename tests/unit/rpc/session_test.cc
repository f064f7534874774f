// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/clock.h"
#include "server/rpc/keep_awake.h"
#include "tests/unit/rpc/fake_core.h"

namespace stoker::rpc {
namespace {

using ::testing::ElementsAre;
using testing::FakeCore;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::MakeReply;
using testing::SessionClient;
using testing::TestServer;

constexpr size_t kBig = 256 << 10;  // a few of these fill what gRPC buffers for a client that does not read

class SessionTest : public ::testing::Test {
 protected:
  // However a test leaves its sessions: each is closed once and freed.
  void TearDown() override {
    server_.Shutdown(absl::ZeroDuration());
    EXPECT_TRUE(core_.ForgetPeers()) << "a session was never freed";
    int opened = 0;
    for (const std::string& event : core_.events()) opened += event.rfind("open ", 0) == 0 ? 1 : 0;
    EXPECT_EQ(core_.CountOf("close"), opened);
  }
  // Opens and gives the daemon's side.
  std::shared_ptr<SessionPeer> Open(SessionClient* client) {
    EXPECT_TRUE(client->Open("a"));
    EXPECT_TRUE(core_.AwaitCountOf("open a", 1));
    return core_.peer("a");
  }

  FakeCore core_;
  TestServer server_{&core_};
  std::unique_ptr<v1::Stoker::Stub> stub_ = server_.Connect();
};

TEST_F(SessionTest, Messages_ReachTheCoreInTheirOrder) {
  SessionClient client(stub_.get());
  ASSERT_TRUE(client.Open("a"));
  for (uint32_t i = 1; i <= 3; ++i) ASSERT_TRUE(client.Advance(i) && client.Seek(i));
  client.HalfClose();
  EXPECT_TRUE(client.Finish().ok());
  EXPECT_THAT(core_.events(),
              ElementsAre("open a", "advance 1", "seek 1", "advance 2", "seek 2", "advance 3", "seek 3", "close"));
}

TEST_F(SessionTest, WhatIsSaidOfCopies_ReachesTheCore) {
  SessionClient client(stub_.get());
  v1::SessionRequest claim, offer, withdraw;
  claim.mutable_claim()->set_lease(7);
  offer.mutable_offer()->set_claim(7);
  withdraw.mutable_withdraw()->set_claim(7);
  ASSERT_TRUE(client.Open("a") && client.Write(claim) && client.Write(offer) && client.Write(withdraw));
  client.HalfClose();
  EXPECT_TRUE(client.Finish().ok());
  EXPECT_THAT(core_.events(), ElementsAre("open a", "claim 7", "offer 7", "withdraw 7", "close"));
}

TEST_F(SessionTest, Send_ManyReplies_ArriveInTheirOrder) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  for (uint64_t i = 1; i <= 2000; ++i) peer->Send(MakeReply(i));
  v1::SessionReply reply;
  for (uint64_t i = 1; i <= 2000; ++i) {
    ASSERT_TRUE(client.Read(&reply));
    ASSERT_EQ(reply.ready().lease(), i);
  }
}

TEST_F(SessionTest, Send_FromWithinOpenAndAdvance_Arrives) {
  core_.on_open = [](const FakeCore::Peer& peer, const auto&) { peer->Send(MakeReply(1)); };
  core_.on_advance = [](const FakeCore::Peer& peer, const auto& advance) { peer->Send(MakeReply(advance.credits())); };
  SessionClient client(stub_.get());
  ASSERT_TRUE(client.Open("a") && client.Advance(2));
  v1::SessionReply first, second;
  ASSERT_TRUE(client.Read(&first) && client.Read(&second));
  EXPECT_EQ(first.ready().lease(), 1u);
  EXPECT_EQ(second.ready().lease(), 2u);
}

// Without KeepAwake gRPC's threads are away between 1.0 and 1.1 seconds after the last message.
TEST_F(SessionTest, ServerThatWasIdle_HearsTheNextMessageAtOnce) {
  const KeepAwake keep_awake(server_.server());
  SessionClient client(stub_.get());
  ASSERT_TRUE(client.Open("a"));
  ASSERT_TRUE(core_.AwaitEvents(1));
  absl::Duration least = absl::InfiniteDuration();
  for (uint32_t i = 1; i <= 4; ++i) {
    absl::SleepFor(absl::Milliseconds(1040));
    const absl::Time begin = absl::Now();
    ASSERT_TRUE(client.Advance(i));
    ASSERT_TRUE(core_.AwaitEvents(1 + i));
    least = std::min(least, absl::Now() - begin);
  }
  EXPECT_LT(least, absl::Milliseconds(20));
}

// ---- what clients must not do ----

void ExpectRefusal(const grpc::Status& status) {
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("first message, and only that, must be Open"));
}

TEST_F(SessionTest, AdvanceFirst_IsRefusedAndTheCoreHearsNothing) {
  SessionClient client(stub_.get());
  ASSERT_TRUE(client.Advance(3));
  ExpectRefusal(client.Finish());
  EXPECT_THAT(core_.events(), IsEmpty());
}

TEST_F(SessionTest, SeekFirst_IsRefusedAndTheCoreHearsNothing) {
  SessionClient client(stub_.get());
  ASSERT_TRUE(client.Seek(3));
  ExpectRefusal(client.Finish());
  EXPECT_THAT(core_.events(), IsEmpty());
}

TEST_F(SessionTest, EmptyMessageFirst_IsRefused) {
  SessionClient client(stub_.get());
  ASSERT_TRUE(client.Write({}));
  ExpectRefusal(client.Finish());
  EXPECT_THAT(core_.events(), IsEmpty());
}

TEST_F(SessionTest, OpenTwice_IsRefusedAndCloses) {
  SessionClient client(stub_.get());
  ASSERT_TRUE(client.Open("a") && client.Open("b"));
  ExpectRefusal(client.Finish());
  EXPECT_THAT(core_.events(), ElementsAre("open a", "close"));
}

TEST_F(SessionTest, EmptyMessageLater_IsRefusedAndCloses) {
  SessionClient client(stub_.get());
  ASSERT_TRUE(client.Open("a") && client.Advance(1) && client.Write({}));
  ExpectRefusal(client.Finish());
  EXPECT_THAT(core_.events(), ElementsAre("open a", "advance 1", "close"));
}

// ---- how sessions end ----

TEST_F(SessionTest, NothingSent_ClientFinishes_TheCoreHearsNothing) {
  SessionClient client(stub_.get());
  client.HalfClose();
  EXPECT_TRUE(client.Finish().ok());
  EXPECT_THAT(core_.events(), IsEmpty());
}

TEST_F(SessionTest, HalfClose_StillDeliversWhatWasSent) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  for (uint64_t i = 1; i <= 20; ++i) peer->Send(MakeReply(i, kBig));
  client.HalfClose();
  ASSERT_TRUE(core_.AwaitCountOf("close", 1));
  v1::SessionReply reply;
  for (uint64_t i = 1; i <= 20; ++i) {
    ASSERT_TRUE(client.Read(&reply));
    ASSERT_EQ(reply.ready().lease(), i);
  }
  EXPECT_FALSE(client.Read(&reply));
  EXPECT_TRUE(client.Finish().ok());
}

TEST_F(SessionTest, Cancel_WhileWritesArePending_ClosesAndFreesTheSession) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  for (uint64_t i = 1; i <= 100; ++i) peer->Send(MakeReply(i, kBig));
  client.Cancel();
  EXPECT_TRUE(core_.AwaitCountOf("close", 1));
  EXPECT_EQ(client.Finish().error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(SessionTest, ConnectionIsCut_WhileWritesArePending_ClosesAndFreesTheSession) {
  std::function<void()> cut;
  const auto stub = server_.ConnectToBeCut(&cut);
  SessionClient client(stub.get());
  const auto peer = Open(&client);
  for (uint64_t i = 1; i <= 100; ++i) peer->Send(MakeReply(i, kBig));
  cut();
  EXPECT_TRUE(core_.AwaitCountOf("close", 1));
}

TEST_F(SessionTest, ConnectionIsCut_WhileIdle_ClosesTheSession) {
  std::function<void()> cut;
  const auto stub = server_.ConnectToBeCut(&cut);
  SessionClient client(stub.get());
  Open(&client);
  cut();
  EXPECT_TRUE(core_.AwaitCountOf("close", 1));
}

TEST_F(SessionTest, End_SendsTheReasonLastAndEndsTheCall) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  peer->Send(MakeReply(1));
  peer->End(absl::DataLossError("shard 3: cut short"));
  v1::SessionReply reply;
  ASSERT_TRUE(client.Read(&reply));
  EXPECT_EQ(reply.ready().lease(), 1u);
  ASSERT_TRUE(client.Read(&reply));
  EXPECT_EQ(reply.failed().code(), static_cast<int>(absl::StatusCode::kDataLoss));
  EXPECT_EQ(reply.failed().message(), "shard 3: cut short");
  EXPECT_FALSE(client.Read(&reply));
  EXPECT_TRUE(client.Finish().ok());
  EXPECT_TRUE(core_.AwaitCountOf("close", 1));
}

TEST_F(SessionTest, End_WhileWritesArePending_ComesAfterThem) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  for (uint64_t i = 1; i <= 40; ++i) peer->Send(MakeReply(i, kBig));
  peer->End(absl::UnavailableError("stopping"));
  peer->Send(MakeReply(41));                   // too late
  peer->End(absl::InternalError("not this"));  // the first reason stands
  v1::SessionReply reply;
  for (uint64_t i = 1; i <= 40; ++i) {
    ASSERT_TRUE(client.Read(&reply));
    ASSERT_EQ(reply.ready().lease(), i);
  }
  ASSERT_TRUE(client.Read(&reply));
  EXPECT_EQ(reply.failed().message(), "stopping");
  EXPECT_FALSE(client.Read(&reply));
  EXPECT_TRUE(client.Finish().ok());
}

TEST_F(SessionTest, End_FromWithinOpen_EndsTheCall) {
  core_.on_open = [](const FakeCore::Peer& peer, const auto&) { peer->End(absl::NotFoundError("no such data set")); };
  SessionClient client(stub_.get());
  ASSERT_TRUE(client.Open("a"));
  v1::SessionReply reply;
  ASSERT_TRUE(client.Read(&reply));
  EXPECT_EQ(reply.failed().message(), "no such data set");
  EXPECT_TRUE(client.Finish().ok());
  EXPECT_TRUE(core_.AwaitCountOf("close", 1));
}

TEST_F(SessionTest, Peer_HeldAfterTheCallIsOver_TakesSendAndEndSilently) {
  std::shared_ptr<SessionPeer> peer;
  {
    SessionClient client(stub_.get());
    peer = Open(&client);
    client.Cancel();
    client.Finish();
    ASSERT_TRUE(core_.AwaitCountOf("close", 1));
  }
  server_.Shutdown(absl::ZeroDuration());  // gRPC has forgotten the call for certain
  peer->Send(MakeReply(1));
  peer->End(absl::UnavailableError("late"));
}

// ---- how servers end ----

TEST_F(SessionTest, ServerShutdown_WithAClientThatDoesNotRead_EndsAtTheDeadline) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  for (uint64_t i = 1; i <= 100; ++i) peer->Send(MakeReply(i, kBig));
  peer->End(absl::UnavailableError("the daemon is stopping"));
  server_.Shutdown(absl::Milliseconds(100));
  EXPECT_EQ(core_.CountOf("close"), 1);
}

TEST_F(SessionTest, ServerShutdown_AfterEnd_GivesAClientThatReadsItsReason) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  peer->End(absl::UnavailableError("the daemon is stopping"));
  std::thread shutdown([this] { server_.Shutdown(testing::kPatience); });
  v1::SessionReply reply;
  ASSERT_TRUE(client.Read(&reply));
  EXPECT_EQ(reply.failed().message(), "the daemon is stopping");
  EXPECT_TRUE(client.Finish().ok());
  shutdown.join();
}

}  // namespace
}  // namespace stoker::rpc
