// The service worker of the console: shows a message of Web Push, and opens its page. It caches nothing.

self.addEventListener("push", (event) => {
  const { title, body, page } = event.data.json();
  event.waitUntil(self.registration.showNotification(title, { body, tag: page, data: page }));
});

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil(self.clients.openWindow(new URL(event.notification.data, self.registration.scope)));
});
