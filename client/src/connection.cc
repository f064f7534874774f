// SPDX-License-Identifier: Apache-2.0
#include "client/src/connection.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "shared/base/paths.h"
#include "shared/base/status_macros.h"
#include "shared/base/unique_fd.h"

namespace stoker::client {
namespace {

constexpr int kMaxMessageBytes = 64 << 20;
constexpr char kRemedy[] = "start stokerd, or name its socket by --socket or STOKER_ADDRESS";

absl::Status NobodyAnswers(absl::string_view address, absl::string_view reason) {
  return absl::UnavailableError(
      absl::StrCat("connect to stokerd: ", address, ": no daemon answers there (", reason, "): ", kRemedy));
}

// Whether somebody listens on a socket, without waiting. gRPC alone would not tell the reason.
absl::Status ProbeSocket(const std::string& path) {
  UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd.valid()) return absl::ResourceExhaustedError(absl::StrCat("connect to stokerd: ", strerror(errno)));
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  memcpy(name.sun_path, path.data(), path.size());  // ParseAddress has checked that it fits
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&name), sizeof(name)) == 0) return absl::OkStatus();
  switch (errno) {
    case EAGAIN:  // a full backlog: it is there and busy
      return absl::OkStatus();
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(absl::StrCat("connect to stokerd: ", path, ": ", strerror(errno),
                                                      ": join the group of the socket, or ask for access"));
    default:
      return NobodyAnswers(path, strerror(errno));
  }
}

// The daemon to talk to when nobody said which: the system's if it answers, else the user's own.
absl::StatusOr<Target> FindDefault() {
  if (const char* variable = ::getenv("STOKER_ADDRESS"); variable != nullptr && variable[0] != '\0') {
    return ParseAddress(variable);
  }
  const std::vector<std::string> paths = {kSystemSocketPath, DefaultSocketPath()};
  std::vector<std::string> reasons;
  for (const std::string& path : paths) {
    STOKER_ASSIGN_OR_RETURN(const Target target, ParseAddress(path));
    absl::Status status = CheckSocketDirectory(path);
    if (status.ok()) status = ProbeSocket(path);
    if (status.ok()) return target;
    if (absl::IsPermissionDenied(status) && path == paths.back()) return status;
    reasons.push_back(absl::StrCat(path, absl::IsPermissionDenied(status) ? " (permission denied)" : ""));
  }
  return absl::UnavailableError(
      absl::StrCat("connect to stokerd: no daemon answers at ", absl::StrJoin(reasons, " or "), ": ", kRemedy));
}

grpc::ChannelArguments Arguments() {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxMessageBytes);
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);  // gRPC's own default is a second,
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 250);      // and two minutes
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);       // a connection each: no client waits for another
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return arguments;
}

}  // namespace

absl::StatusOr<Target> ParseAddress(absl::string_view address) {
  absl::string_view path = address;
  if (absl::StartsWith(path, "unix:")) {
    path.remove_prefix(5);
    if (absl::StartsWith(path, "//")) path.remove_prefix(2);
  } else if (!absl::StrContains(address, '/') && absl::StrContains(address, ':')) {
    uint32_t port = 0;
    const absl::string_view digits = address.substr(address.rfind(':') + 1);
    if (!absl::SimpleAtoi(digits, &port) || port == 0 || port > 65535) {
      return absl::InvalidArgumentError(absl::StrCat("address \"", address, "\": not HOST:PORT: no such port"));
    }
    return Target{std::string(address), std::string(address), false};
  }
  if (path.empty() || path.size() >= sizeof(sockaddr_un::sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("address \"", address, "\": the path of a socket has 1 to ",
                                                   sizeof(sockaddr_un::sun_path) - 1, " bytes, this has ",
                                                   path.size()));
  }
  return Target{std::string(path), absl::StrCat("unix:", path), true};
}

Connection::Connection(const Target& target, absl::Duration timeout)
    : address_(target.address),
      lane_path_(target.unix_socket ? LanePath(target.address) : ""),
      timeout_(timeout),
      channel_(grpc::CreateCustomChannel(target.grpc_target, grpc::InsecureChannelCredentials(), Arguments())),
      stoker_(v1::Stoker::NewStub(channel_)),
      health_(grpc::health::v1::Health::NewStub(channel_)) {}

absl::StatusOr<std::shared_ptr<Connection>> Connection::Connect(const ConnectOptions& options) {
  STOKER_ASSIGN_OR_RETURN(const Target target, options.address.empty() ? FindDefault() : ParseAddress(options.address));
  if (target.unix_socket) STOKER_RETURN_IF_ERROR(ProbeSocket(target.address));
  std::shared_ptr<Connection> connection(new Connection(target, options.timeout));
  const auto deadline = absl::ToChronoTime(absl::Now() + options.timeout);
  while (true) {
    const grpc_connectivity_state state = connection->channel_->GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY) return connection;
    if (state == GRPC_CHANNEL_TRANSIENT_FAILURE || state == GRPC_CHANNEL_SHUTDOWN) {
      return NobodyAnswers(target.address, "connection failed");
    }
    if (!connection->channel_->WaitForStateChange(state, deadline)) {
      return NobodyAnswers(target.address,
                           absl::StrCat("connected, but no answer in ", absl::FormatDuration(options.timeout)));
    }
  }
}

bool Connection::AwaitReady(absl::Time until) const {
  const auto deadline = absl::ToChronoTime(until);
  while (true) {
    const grpc_connectivity_state state = channel_->GetState(/*try_to_connect=*/true);
    if (state == GRPC_CHANNEL_READY) return true;
    if (!channel_->WaitForStateChange(state, deadline)) return false;
  }
}

}  // namespace stoker::client
