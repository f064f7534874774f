// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/lane.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <optional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"
#include "tests/unit/loop/loop_thread.h"
#include "tests/unit/rpc/fake_core.h"

namespace stoker::rpc {
namespace {

using stoker::testing::LoopThread;
using stoker::testing::StatusIs;
using ::testing::ElementsAre;
using testing::FakeCore;
using ::testing::HasSubstr;
using testing::MakeReply;
using testing::SessionClient;
using testing::TestServer;

constexpr uint64_t kToken = 42;

// Handles requests on a loop and in their turn, as the daemon does.
class LoopCore : public FakeCore {
 public:
  explicit LoopCore(loop::EventLoop* loop) : loop_(loop) {}
  void HandleRequest(Peer peer, v1::SessionRequest request) override {
    loop_->Post([this, peer = std::move(peer), request = std::move(request)] {
      peer->InOrder(request.number(), [this, peer, request] { HandleOnLoop(peer.get(), request); });
    });
  }
  void CloseSession(Peer peer) override {
    loop_->Post([this, peer = std::move(peer)] {
      peer->Detach();
      FakeCore::CloseSession(peer);
    });
  }

 private:
  loop::EventLoop* const loop_;
};

v1::SessionRequest Advance(uint64_t number, uint32_t credits) {
  v1::SessionRequest request;
  request.set_number(number);
  request.mutable_advance()->set_credits(credits);
  return request;
}

v1::SessionRequest Seek(uint64_t number, uint64_t epoch) {
  v1::SessionRequest request;
  request.set_number(number);
  request.mutable_seek()->mutable_position()->set_epoch(epoch);
  return request;
}

// The client's end of a lane.
class LaneClient {
 public:
  explicit LaneClient(absl::StatusOr<Channel> channel) : channel_(*std::move(channel)) {}

  absl::Status Write(const google::protobuf::MessageLite& message) { return channel_.Send(message); }
  absl::Status Hello(uint64_t token = kToken) {
    v1::LaneHello hello;
    hello.set_session(7);
    hello.set_token(token);
    return Write(hello);
  }
  // Nothing at the end.
  std::optional<v1::SessionReply> Read() {
    const absl::StatusOr<std::optional<Channel::Received>> received = channel_.Receive();
    if (!received.ok()) return std::nullopt;
    v1::SessionReply reply;
    EXPECT_TRUE(reply.ParseFromString((*received)->bytes));
    return reply;
  }
  int fd() const { return channel_.fd(); }

 private:
  Channel channel_;
};

// Session 7 is the one that was opened for data set "a".
class LaneTest : public ::testing::Test {
 protected:
  void SetUp() override {
    loop_->Call([this] {
      auto listener = LaneListener::Listen(Path(), &*loop_);
      ASSERT_OK(listener);
      listener_ = *std::move(listener);
      listener_->Start([this](const v1::LaneHello& hello) -> std::shared_ptr<SessionPeer> {
        return hello.session() == 7 && hello.token() == kToken ? core_.peer("a") : nullptr;
      });
    });
  }
  void TearDown() override {
    server_.Shutdown(absl::ZeroDuration());
    EXPECT_TRUE(core_.ForgetPeers()) << "a session was never freed";
    loop_->Call([this] { listener_ = nullptr; });
    EXPECT_NE(::access(Path().c_str(), F_OK), 0) << "the socket stayed";
  }
  std::string Path() const { return dir_.File("lane"); }
  LaneClient Connect() { return LaneClient(Channel::Connect(Path())); }

  std::shared_ptr<SessionPeer> Open(SessionClient* client, bool budget = false) {
    v1::SessionRequest request;
    request.mutable_open()->set_dataset("a");
    if (budget) request.mutable_open()->mutable_plan()->mutable_budget()->set_graphs(4);
    EXPECT_TRUE(client->Write(request));
    EXPECT_TRUE(core_.AwaitCountOf("open a", 1));
    return core_.peer("a");
  }
  LaneClient Attach() {
    LaneClient lane = Connect();
    EXPECT_OK(lane.Hello());
    const std::optional<v1::SessionReply> attached = lane.Read();
    EXPECT_TRUE(attached && attached->has_attached());
    return lane;
  }
  void Send(const std::shared_ptr<SessionPeer>& peer, const v1::SessionReply& reply) {
    loop_->Call([&] { peer->Send(reply); });
  }
  // What the stream says of why the session failed.
  static v1::SessionReply::Failed Failure(SessionClient* client) {
    v1::SessionReply reply;
    while (client->Read(&reply)) {
      if (reply.has_failed()) return reply.failed();
    }
    ADD_FAILURE() << "the session did not fail";
    return {};
  }

  const stoker::testing::TempDir dir_;
  LoopThread loop_;
  std::unique_ptr<LaneListener> listener_;
  LoopCore core_{&*loop_};
  TestServer server_{&core_};
  std::unique_ptr<v1::Stoker::Stub> stub_ = server_.Connect();
};

// ---- both ways ----

TEST_F(LaneTest, Replies_GoByTheStreamBeforeItIsThere_AndThenByTheLane) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  Send(peer, MakeReply(1));
  Send(peer, MakeReply(2));
  LaneClient lane = Connect();
  ASSERT_OK(lane.Hello());
  const auto attached = lane.Read();
  ASSERT_TRUE(attached);
  EXPECT_EQ(attached->attached().stream_replies(), 2u);
  for (uint64_t i = 3; i <= 50; ++i) Send(peer, MakeReply(i));
  for (uint64_t i = 3; i <= 50; ++i) {
    const auto reply = lane.Read();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->ready().lease(), i);
  }
  v1::SessionReply reply;
  for (uint64_t i = 1; i <= 2; ++i) {
    ASSERT_TRUE(client.Read(&reply));
    EXPECT_EQ(reply.ready().lease(), i);
  }
}

TEST_F(LaneTest, Requests_OfBothWays_AreHandledInTheOrderOfTheirNumbers) {
  SessionClient client(stub_.get());
  Open(&client, /*budget=*/true);
  LaneClient lane = Attach();
  ASSERT_OK(lane.Write(Advance(3, 3)));
  ASSERT_OK(lane.Write(Advance(4, 4)));
  ASSERT_TRUE(client.Write(Advance(1, 1)));
  ASSERT_TRUE(core_.AwaitCountOf("advance 1", 1));
  EXPECT_THAT(core_.events(), ElementsAre("open a", "advance 1"));
  ASSERT_TRUE(client.Write(Seek(2, 9)));
  ASSERT_OK(lane.Write(Advance(5, 5)));
  ASSERT_TRUE(core_.AwaitCountOf("advance 5", 1));
  EXPECT_THAT(core_.events(), ElementsAre("open a", "advance 1", "seek 9", "advance 3", "advance 4", "advance 5"));
}

TEST_F(LaneTest, Seek_ByTheLane_WhereEpochsNeedNoPlanning) {
  SessionClient client(stub_.get());
  Open(&client);
  LaneClient lane = Attach();
  ASSERT_OK(lane.Write(Seek(1, 3)));
  EXPECT_TRUE(core_.AwaitCountOf("seek 3", 1));
}

TEST_F(LaneTest, ClientThatDoesNotRead_HoldsUpNobody_AndGetsAllInOrder) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  LaneClient lane = Attach();
  constexpr uint64_t kReplies = 200;
  for (uint64_t i = 1; i <= kReplies; ++i) Send(peer, MakeReply(i, 32 << 10));  // some ten of them fill the socket
  for (uint64_t i = 1; i <= kReplies; ++i) {
    const auto reply = lane.Read();
    ASSERT_TRUE(reply);
    ASSERT_EQ(reply->ready().lease(), i);
  }
  Send(peer, MakeReply(kReplies + 1));
  EXPECT_EQ(lane.Read()->ready().lease(), kReplies + 1);
}

TEST_F(LaneTest, ReplyOfManyBatches_GoesInAsManyPacketsAsItNeeds) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  LaneClient lane = Attach();
  constexpr uint64_t kBatches = 101;
  v1::SessionReply many = MakeReply(1, 3000);
  for (uint64_t i = 2; i <= kBatches; ++i) *many.add_following() = MakeReply(i, 3000).ready();
  Send(peer, many);
  int packets = 0;
  for (uint64_t next = 1; next <= kBatches; ++packets) {
    const auto reply = lane.Read();
    ASSERT_TRUE(reply);
    ASSERT_EQ(reply->ready().lease(), next++);
    for (const auto& following : reply->following()) ASSERT_EQ(following.lease(), next++);
  }
  EXPECT_GE(packets, 101 * 3000 / (64 << 10));
  EXPECT_LE(packets, 16);
}

// ---- ends ----

TEST_F(LaneTest, End_ComesByTheStream_AfterWhatTheLaneHas) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  LaneClient lane = Attach();
  Send(peer, MakeReply(1));
  loop_->Call([&] { peer->End(absl::DataLossError("shard 3: cut short")); });
  const auto reply = lane.Read();
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->ready().lease(), 1u);
  EXPECT_FALSE(lane.Read());
  EXPECT_EQ(Failure(&client).message(), "shard 3: cut short");
  EXPECT_TRUE(client.Finish().ok());
  EXPECT_TRUE(core_.AwaitCountOf("close", 1));
}

TEST_F(LaneTest, ClosedByTheClient_EndsTheSession) {
  SessionClient client(stub_.get());
  Open(&client);
  { LaneClient lane = Attach(); }
  EXPECT_EQ(Failure(&client).code(), static_cast<int>(absl::StatusCode::kUnavailable));
  EXPECT_TRUE(core_.AwaitCountOf("close", 1));
}

TEST_F(LaneTest, SessionThatEnds_ClosesTheLane) {
  SessionClient client(stub_.get());
  Open(&client);
  LaneClient lane = Attach();
  client.HalfClose();
  EXPECT_FALSE(lane.Read());
}

TEST_F(LaneTest, ReplyLargerThanAPacket_EndsTheSession) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  LaneClient lane = Attach();
  Send(peer, MakeReply(1, Channel::kMaxBytes));
  EXPECT_EQ(Failure(&client).code(), static_cast<int>(absl::StatusCode::kInternal));
}

// ---- what clients must not do ----

struct Wrong {
  const char* name;
  v1::SessionRequest request;
};

class WrongRequestTest : public LaneTest, public ::testing::WithParamInterface<Wrong> {};

TEST_P(WrongRequestTest, EndsTheSession) {
  SessionClient client(stub_.get());
  Open(&client, /*budget=*/true);
  LaneClient lane = Attach();
  ASSERT_OK(lane.Write(Advance(1, 1)));
  ASSERT_OK(lane.Write(GetParam().request));
  EXPECT_FALSE(lane.Read());
  EXPECT_EQ(Failure(&client).code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
  EXPECT_THAT(core_.events().at(1), "advance 1");
  EXPECT_TRUE(core_.AwaitEvents(3));
  EXPECT_THAT(core_.events().at(2), "close");
}

v1::SessionRequest OpenAgain() {
  v1::SessionRequest request;
  request.set_number(2);
  request.mutable_open()->set_dataset("b");
  return request;
}

v1::SessionRequest NothingKnown() {
  v1::SessionRequest request;
  request.set_number(2);
  return request;
}

INSTANTIATE_TEST_SUITE_P(All, WrongRequestTest,
                         ::testing::Values(Wrong{"NumberAgain", Advance(1, 5)}, Wrong{"NoNumber", Advance(0, 5)},
                                           Wrong{"Open", OpenAgain()}, Wrong{"SeekInAPlanByBudget", Seek(2, 1)},
                                           Wrong{"NothingKnown", NothingKnown()}),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_F(LaneTest, NumbersThatLeaveOneOut_AreNotKeptWithoutALimit) {
  SessionClient client(stub_.get());
  Open(&client);
  LaneClient lane = Attach();
  for (uint64_t i = 2; i <= 1100 && lane.Write(Advance(i, 1)).ok(); ++i) {
  }
  EXPECT_EQ(Failure(&client).code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
}

TEST_F(LaneTest, Rubbish_EndsItsSession) {
  SessionClient client(stub_.get());
  Open(&client);
  LaneClient lane = Attach();
  ASSERT_EQ(::send(lane.fd(), "\xff\xff\xff", 3, 0), 3);
  EXPECT_FALSE(lane.Read());
  EXPECT_THAT(Failure(&client).message(), HasSubstr("no request"));
}

TEST_F(LaneTest, WhoIsNobody_IsHungUpOn_AndTheSessionGoesOnByItsStream) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  LaneClient wrong = Connect(), rubbish = Connect(), silent = Connect();
  ASSERT_OK(wrong.Hello(kToken + 1));
  EXPECT_FALSE(wrong.Read());
  ASSERT_EQ(::send(rubbish.fd(), "\xff\xff\xff", 3, 0), 3);
  EXPECT_FALSE(rubbish.Read());
  Send(peer, MakeReply(1));
  v1::SessionReply reply;
  ASSERT_TRUE(client.Read(&reply));
  EXPECT_EQ(reply.ready().lease(), 1u);
}

TEST_F(LaneTest, SecondLaneOfASession_IsHungUpOn_AndTheFirstGoesOn) {
  SessionClient client(stub_.get());
  const auto peer = Open(&client);
  LaneClient first = Attach();
  LaneClient second = Connect();
  ASSERT_OK(second.Hello());
  EXPECT_FALSE(second.Read());
  Send(peer, MakeReply(1));
  EXPECT_EQ(first.Read()->ready().lease(), 1u);
}

TEST_F(LaneTest, ManyWhoSayNothing_KeepNobodyOutWhenTheyHaveGone) {
  SessionClient client(stub_.get());
  Open(&client);
  std::vector<LaneClient> silent;
  for (int i = 0; i < 300; ++i) silent.push_back(Connect());
  EXPECT_FALSE(silent.back().Read()) << "it was one too many";
  silent.clear();
  const absl::Time deadline = absl::Now() + testing::kPatience;
  while (absl::Now() < deadline) {  // the listener hears one after the other that they have gone
    LaneClient lane = Connect();
    (void)lane.Hello();
    if (lane.Read()) return;
  }
  FAIL() << "nobody is let in any more";
}

TEST_F(LaneTest, NoDescriptorsLeft_IsWaitedFor) {
  SessionClient client(stub_.get());
  Open(&client);
  {  // UBSan looks at a type once, for which it needs descriptors
    LaneClient nobody = Connect();
    ASSERT_OK(nobody.Hello(kToken + 1));
    EXPECT_FALSE(nobody.Read());
  }
  UniqueFd socket(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  Path().copy(name.sun_path, sizeof(name.sun_path) - 1);
  rlimit before;
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  const uint64_t turns = loop_->turns();
  {
    const rlimit none = {1, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
    EXPECT_EQ(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)), 0);
    absl::SleepFor(absl::Milliseconds(250));
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  }
  EXPECT_LT(loop_->turns() - turns, 100u) << "the loop did nothing but try";
  LaneClient lane((Channel(std::move(socket))));
  ASSERT_OK(lane.Hello());
  EXPECT_TRUE(lane.Read()->has_attached());
}

}  // namespace
}  // namespace stoker::rpc
