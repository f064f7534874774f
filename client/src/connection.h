// SPDX-License-Identifier: Apache-2.0
// The gRPC channel to one daemon. Thread-safe; shared by a Client and its Loaders.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "stoker/client.h"
#include "stoker/v1/service.grpc.pb.h"

namespace stoker::client {

// What an address means.
struct Target {
  std::string address;      // as people write it: a path or HOST:PORT
  std::string grpc_target;  // as gRPC does
  bool unix_socket = false;
};

// PATH (anything with a slash or without a colon), unix:PATH, or HOST:PORT. InvalidArgument for an empty or too long
// path and for a port that is none.
absl::StatusOr<Target> ParseAddress(absl::string_view address);

class Connection {
 public:
  // As Client::Connect.
  static absl::StatusOr<std::shared_ptr<Connection>> Connect(const ConnectOptions& options);

  // Whether the channel is connected, at `until` at the latest, and tries to be. While no call is under way gRPC reads
  // from a new connection every five seconds only, but for those who wait here.
  bool AwaitReady(absl::Time until) const;

  v1::Stoker::Stub& stoker() const { return *stoker_; }
  grpc::health::v1::Health::Stub& health() const { return *health_; }
  const std::string& address() const { return address_; }
  const std::string& lane_path() const { return lane_path_; }  // of its sessions; empty: they have none
  absl::Duration timeout() const { return timeout_; }

 private:
  Connection(const Target& target, absl::Duration timeout);

  const std::string address_;
  const std::string lane_path_;
  const absl::Duration timeout_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Stoker::Stub> stoker_;
  std::unique_ptr<grpc::health::v1::Health::Stub> health_;
};

}  // namespace stoker::client
