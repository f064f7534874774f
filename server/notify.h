// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace stoker {

// Tells the service manager `state` ("READY=1", "STATUS=…"), as sd_notify(3) describes: one datagram to $NOTIFY_SOCKET.
// Does nothing when there is none. Any thread.
void NotifyServiceManager(absl::string_view state);

// How often "WATCHDOG=1" is expected ($WATCHDOG_USEC); infinite when it is not.
absl::Duration WatchdogInterval();

}  // namespace stoker
