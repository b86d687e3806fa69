import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.SSLParameters;
import javax.net.ssl.TrustManagerFactory;

/**
 * Asks a gateway over TLS with Java's own client and ends with 0 if all came as it must:
 * `java TlsClient.java TLSv1.3 https://localhost:PORT/reverse authority.pem [client.pem]`, where a body comes back
 * reversed. client.pem has a certificate and its key, which is one of elliptic curves. Java 11 or later.
 */
class TlsClient {
    static final char[] NO_PASSWORD = new char[0];

    public static void main(String[] arguments) throws Exception {
        HttpClient client = client(arguments[0], arguments[2], arguments.length > 3 ? arguments[3] : null);
        String[] bodies = {"abc", "", "abc".repeat(100_000)};
        for (String body : bodies) {
            HttpRequest request = HttpRequest.newBuilder(URI.create(arguments[1]))
                    .POST(HttpRequest.BodyPublishers.ofString(body)).build();
            HttpResponse<String> answer = client.send(request, HttpResponse.BodyHandlers.ofString());
            check(answer.statusCode() == 200, "status " + answer.statusCode());
            check(answer.version() == HttpClient.Version.HTTP_1_1, "version " + answer.version());
            check(answer.body().equals(new StringBuilder(body).reverse().toString()), "another body");
            check(answer.sslSession().orElseThrow().getProtocol().equals(arguments[0]), "another version of TLS");
        }
        System.out.println(bodies.length + " bodies came back");
    }

    static HttpClient client(String version, String authority, String own) throws Exception {
        KeyStore trusted = empty();
        trusted.setCertificateEntry("authority", certificate(authority));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(trusted);

        KeyStore shown = empty();
        if (own != null) {
            shown.setKeyEntry("own", key(own), NO_PASSWORD, new Certificate[] {certificate(own)});
        }
        KeyManagerFactory keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(shown, NO_PASSWORD);

        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trust.getTrustManagers(), null);
        SSLParameters parameters = new SSLParameters();
        parameters.setProtocols(new String[] {version});
        return HttpClient.newBuilder().sslContext(context).sslParameters(parameters).build();
    }

    static PrivateKey key(String path) throws Exception {
        String text = Files.readString(Path.of(path));
        String encoded = text.substring(text.indexOf("PRIVATE KEY-----") + 16, text.indexOf("-----END"));
        byte[] decoded = Base64.getMimeDecoder().decode(encoded);
        return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(decoded));
    }

    static KeyStore empty() throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(null, NO_PASSWORD);
        return store;
    }

    static Certificate certificate(String path) throws Exception {
        String text = Files.readString(Path.of(path));
        byte[] found = text.substring(text.indexOf("-----BEGIN CERTIFICATE-----")).getBytes();
        try (InputStream stream = new ByteArrayInputStream(found)) {
            return CertificateFactory.getInstance("X.509").generateCertificate(stream);
        }
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
