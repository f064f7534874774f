// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/rpc/fake_core.h"

#include <fcntl.h>
#include <grpc/grpc.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/server_posix.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace stoker::rpc::testing {

void FakeCore::Note(std::string event) {
  absl::MutexLock lock(&mutex_);
  events_.push_back(std::move(event));
}

std::vector<std::string> FakeCore::events() const {
  absl::MutexLock lock(&mutex_);
  return events_;
}

bool FakeCore::AwaitEvents(size_t count) const {
  absl::MutexLock lock(&mutex_);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return events_.size() >= count; };
  return mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience);
}

int FakeCore::CountOf(const std::string& event) const {
  absl::MutexLock lock(&mutex_);
  return static_cast<int>(std::count(events_.begin(), events_.end(), event));
}

bool FakeCore::AwaitCountOf(const std::string& event, int count) const {
  absl::MutexLock lock(&mutex_);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return std::count(events_.begin(), events_.end(), event) >= count;
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience);
}

FakeCore::Peer FakeCore::peer(const std::string& name) const {
  absl::MutexLock lock(&mutex_);
  return peers_.at(name);
}

bool FakeCore::ForgetPeers() {
  std::vector<std::weak_ptr<SessionPeer>> ending;
  {
    absl::MutexLock lock(&mutex_);
    ending.swap(all_peers_);
    peers_.clear();
  }
  const absl::Time deadline = absl::Now() + kPatience;
  for (const std::weak_ptr<SessionPeer>& peer : ending) {
    while (!peer.expired()) {
      if (absl::Now() > deadline) return false;
      absl::SleepFor(absl::Milliseconds(1));
    }
  }
  return true;
}

void FakeCore::OpenSession(Peer peer, const v1::SessionRequest::Open& request) {
  on_open(peer, request);
  absl::MutexLock lock(&mutex_);
  events_.push_back(absl::StrCat("open ", request.dataset()));
  all_peers_.push_back(peer);
  if (keep_peers) peers_[request.dataset()] = std::move(peer);
}

void FakeCore::HandleRequest(Peer peer, v1::SessionRequest request) {
  if (request.has_advance()) on_advance(peer, request.advance());
  HandleOnLoop(peer.get(), request);
}

void FakeCore::HandleOnLoop(SessionPeer*, const v1::SessionRequest& request) {
  if (request.has_advance()) Note(absl::StrCat("advance ", request.advance().credits()));
  if (request.has_seek()) Note(absl::StrCat("seek ", request.seek().position().epoch()));
  if (request.has_claim()) Note(absl::StrCat("claim ", request.claim().lease()));
  if (request.has_offer()) Note(absl::StrCat("offer ", request.offer().claim()));
  if (request.has_withdraw()) Note(absl::StrCat("withdraw ", request.withdraw().claim()));
}

void FakeCore::CloseSession(Peer peer) {
  on_close(peer);
  Note("close");
}

class FakeCore::Pinned : public PinnedBatch {
 public:
  Pinned(FakeCore* core, std::string bytes) : core_(core), bytes_(std::move(bytes)) {
    absl::MutexLock lock(&core_->mutex_);
    ++core_->pinned_;
  }
  ~Pinned() override {
    absl::MutexLock lock(&core_->mutex_);
    --core_->pinned_;
  }
  absl::Span<const uint8_t> bytes() const override {
    return {reinterpret_cast<const uint8_t*>(bytes_.data()), bytes_.size()};
  }

 private:
  FakeCore* const core_;
  const std::string bytes_;
};

absl::StatusOr<std::unique_ptr<PinnedBatch>> FakeCore::PinBatch(const v1::FetchRequest& request) {
  absl::StatusOr<std::string> bytes = pin(request);
  if (!bytes.ok()) return bytes.status();
  return std::make_unique<Pinned>(this, *std::move(bytes));
}

int FakeCore::pinned() const {
  absl::MutexLock lock(&mutex_);
  return pinned_;
}

bool FakeCore::AwaitPinned(int count) const {
  absl::MutexLock lock(&mutex_);
  const auto there = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return pinned_ == count; };
  return mutex_.AwaitWithTimeout(absl::Condition(&there), kPatience);
}

// ---- TestServer ----

TestServer::TestServer(Core* core) : service_(core) {
  grpc_init();  // as stokerd does: gRPC's shutdown may wait ten seconds
  grpc::ServerBuilder builder;
  builder.AddListeningPort("unix:" + dir_.File("socket"), grpc::InsecureServerCredentials());
  builder.RegisterService(&service_);
  server_ = builder.BuildAndStart();
  EXPECT_NE(server_, nullptr);
}

std::unique_ptr<v1::Stoker::Stub> TestServer::Connect() const {
  return v1::Stoker::NewStub(grpc::CreateChannel("unix:" + dir_.File("socket"), grpc::InsecureChannelCredentials()));
}

std::unique_ptr<v1::Stoker::Stub> TestServer::ConnectToBeCut(std::function<void()>* cut) const {
  int ends[2];
  EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
  const int client = ::fcntl(ends[1], F_DUPFD_CLOEXEC, 0);  // gRPC owns both ends
  *cut = [client] {
    ::shutdown(client, SHUT_RDWR);
    ::close(client);
  };
  grpc::AddInsecureChannelFromFd(server_.get(), ends[0]);
  return v1::Stoker::NewStub(grpc::CreateInsecureChannelFromFd("client", ends[1]));
}

void TestServer::Shutdown(absl::Duration drain) {
  if (server_ == nullptr) return;
  server_->Shutdown(absl::ToChronoTime(absl::Now() + drain));
  server_->Wait();
  server_.reset();
}

// ---- SessionClient ----

bool SessionClient::Open(const std::string& dataset) {
  v1::SessionRequest request;
  request.mutable_open()->set_dataset(dataset);
  return Write(request);
}

bool SessionClient::Advance(uint32_t credits) {
  v1::SessionRequest request;
  request.mutable_advance()->set_credits(credits);
  return Write(request);
}

bool SessionClient::Seek(uint64_t epoch) {
  v1::SessionRequest request;
  request.mutable_seek()->mutable_position()->set_epoch(epoch);
  return Write(request);
}

grpc::Status SessionClient::Finish() {
  v1::SessionReply reply;
  while (call_->Read(&reply)) {
  }
  return call_->Finish();
}

v1::SessionReply MakeReply(uint64_t lease, size_t bytes) {
  v1::SessionReply reply;
  reply.mutable_ready()->set_lease(lease);
  reply.mutable_ready()->mutable_batch()->mutable_segment()->set_name(std::string(bytes, 'x'));
  return reply;
}

}  // namespace stoker::rpc::testing
