// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/lane.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

namespace stoker::rpc {
namespace {

constexpr size_t kMostStrangers = 256;
constexpr absl::Duration kNoDescriptorsPause = absl::Milliseconds(100);

// The first half of the batches that `reply` announces; `reply` keeps the others. REQUIRES: there are two or more.
v1::SessionReply TakeHalf(v1::SessionReply* reply) {
  v1::SessionReply first;
  const int batches = 1 + reply->following_size();
  *first.mutable_ready() = std::move(*reply->mutable_ready());
  for (int i = 0; i + 1 < batches / 2; ++i) *first.add_following() = std::move(*reply->mutable_following(i));
  *reply->mutable_ready() = std::move(*reply->mutable_following(batches / 2 - 1));
  reply->mutable_following()->DeleteSubrange(0, batches / 2);
  return first;
}

}  // namespace

// ---- Lane ----

void Lane::Start(std::function<void(v1::SessionRequest)> on_request, std::function<void(const absl::Status&)> on_end) {
  on_request_ = std::move(on_request);
  on_end_ = std::move(on_end);
  open_ = true;
  loop_->Watch(channel_.fd(), [this](uint32_t events) { OnReady(events); });
}

void Lane::Close() {
  left_ = true;
  Shut();
}

void Lane::Shut() {
  if (!std::exchange(open_, false)) return;
  loop_->Unwatch(channel_.fd());
  ::shutdown(channel_.fd(), SHUT_RDWR);  // what was sent can still be read
}

void Lane::OnReady(uint32_t events) {
  const std::shared_ptr<Lane> self = shared_from_this();  // a request may end the session
  if ((events & EPOLLOUT) != 0) SendUnsent();
  if (!open_ || (events & ~uint32_t{EPOLLOUT}) == 0) return;
  const absl::StatusOr<std::optional<Channel::Received>> received = channel_.Receive();
  if (!received.ok()) return Fail(received.status());
  if (!received->has_value()) return;
  v1::SessionRequest request;
  if (!request.ParseFromString((*received)->bytes)) {
    return Fail(absl::InvalidArgumentError("lane: what came is no request"));
  }
  on_request_(std::move(request));
}

void Lane::Send(v1::SessionReply reply) {
  while (reply.following_size() > 0 && reply.ByteSizeLong() > Channel::kMaxBytes) Send(TakeHalf(&reply));
  if (!open_) return;
  if (!unsent_.empty()) {
    unsent_.push_back(std::move(reply));
    return;
  }
  const absl::Status status = channel_.Send(reply);
  if (absl::IsResourceExhausted(status)) {
    unsent_.push_back(std::move(reply));
    loop_->WatchFor(channel_.fd(), EPOLLIN | EPOLLOUT);
  } else if (!status.ok()) {
    Fail(status);
  }
}

void Lane::SendUnsent() {
  while (!unsent_.empty()) {
    const absl::Status status = channel_.Send(unsent_.front());
    if (absl::IsResourceExhausted(status)) return;
    if (!status.ok()) return Fail(status);
    unsent_.pop_front();
  }
  loop_->WatchFor(channel_.fd(), EPOLLIN);
}

// Not within the call that found out: the caller may be in the middle of something with the session.
void Lane::Fail(const absl::Status& reason) {
  if (!open_) return;
  Shut();
  loop_->After(absl::ZeroDuration(), [self = shared_from_this(), reason] {
    if (!self->left_) self->on_end_(reason);
  });
}

// ---- LaneListener ----

absl::StatusOr<std::unique_ptr<LaneListener>> LaneListener::Listen(const std::string& path, loop::EventLoop* loop) {
  absl::StatusOr<UniqueFd> socket = Channel::Listen(path);
  if (!socket.ok()) return socket.status();
  return std::unique_ptr<LaneListener>(new LaneListener(path, *std::move(socket), loop));
}

LaneListener::~LaneListener() {
  loop_->Cancel(resume_);
  loop_->Unwatch(socket_.get());
  for (const auto& [fd, channel] : strangers_) loop_->Unwatch(fd);
  ::unlink(path_.c_str());
}

void LaneListener::Start(Find find) {
  find_ = std::move(find);
  loop_->Watch(socket_.get(), [this](uint32_t) { Accept(); });
}

void LaneListener::Accept() {
  UniqueFd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (!socket.valid()) {
    if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS) return;
    loop_->WatchFor(socket_.get(), 0);  // else it would be ready again and again
    resume_ = loop_->After(kNoDescriptorsPause, [this] { loop_->WatchFor(socket_.get(), EPOLLIN); });
    return;
  }
  if (strangers_.size() >= kMostStrangers) return;  // its client goes on with the stream
  const int fd = socket.get();
  strangers_.emplace(fd, Channel(std::move(socket)));
  loop_->Watch(fd, [this, fd](uint32_t) { OnHello(fd); });
}

void LaneListener::OnHello(int fd) {
  const absl::StatusOr<std::optional<Channel::Received>> received = strangers_.at(fd).Receive();
  if (received.ok() && !received->has_value()) return;
  loop_->Unwatch(fd);
  Channel channel = std::move(strangers_.extract(fd).mapped());
  v1::LaneHello hello;
  if (!received.ok() || !hello.ParseFromString((*received)->bytes)) return;
  const std::shared_ptr<SessionPeer> session = find_(hello);
  if (session != nullptr) session->Attach(std::make_shared<Lane>(std::move(channel), loop_));
}

}  // namespace stoker::rpc
