// SPDX-License-Identifier: Apache-2.0
// Where daemon and clients meet when nobody says otherwise. One rule for both sides.
#pragma once

#include <string>

#include "absl/status/status.h"

namespace stoker {

// The daemon of the system unit listens here.
inline constexpr char kSystemSocketPath[] = "/run/stoker/stoker.sock";

// The socket of a daemon that a user starts for himself: $XDG_RUNTIME_DIR/stoker/stoker.sock, without that variable
// /tmp/stoker-<uid>/stoker.sock.
std::string DefaultSocketPath();

// Whoever comes first makes /tmp/stoker-<uid>, and may be another user: PermissionDenied for a socket in it, unless the
// directory is the caller's and nobody else may write to it. OK for one that is not there, and for other directories.
absl::Status CheckSocketDirectory(const std::string& socket_path);

// The socket beside `socket` for the lanes of sessions: service.proto, LaneHello.
std::string LanePath(const std::string& socket);

// Stores and data-set records of such a daemon: $XDG_CACHE_HOME/stoker, else ~/.cache/stoker, and for a user without a
// home /tmp/stoker-<uid>/cache.
std::string DefaultCacheDir();

// The caller's home directory: $HOME, else what the user database says; empty when there is none.
std::string HomeDirectory();

}  // namespace stoker
