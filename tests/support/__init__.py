"""What tests start and speak to: real cpro processes, a scripted backend, plain sockets."""
