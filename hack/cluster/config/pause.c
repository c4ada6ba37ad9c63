/* The process that holds a pod's network namespace: it sleeps until it is told to go. */
#include <signal.h>
#include <unistd.h>

static void leave(int signal) { _exit(signal == SIGINT ? 130 : 0); }

int main(void) {
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    for (;;) pause();
}
